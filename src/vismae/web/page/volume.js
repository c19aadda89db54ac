// A volume of numbers whose axes run to the patient's head, back and left, and cuts through it.

export const SIDES = {
  axial: { l: 'R', r: 'L', t: 'A', b: 'P' },
  coronal: { l: 'R', r: 'L', t: 'S', b: 'I' },
  sagittal: { l: 'A', r: 'P', t: 'S', b: 'I' },
};

// For each plane: the axis it is cut along, and the axes of its rows and columns. Rows that run to the
// head are drawn from the top down, so they are read backwards.
const CUTS = {
  image: { along: 0, rows: 1, columns: 2, upside: false },
  axial: { along: 0, rows: 1, columns: 2, upside: false },
  coronal: { along: 1, rows: 0, columns: 2, upside: true },
  sagittal: { along: 2, rows: 0, columns: 1, upside: true },
};

export class Geometry {
  constructor(image) {
    this.shape = image.shape;
    this.spacing = image.spacing_mm;
    this.channels = image.colour ? 3 : 1;
  }

  slices(plane) { return this.shape[CUTS[plane].along]; }

  size(plane) {
    const { rows, columns } = CUTS[plane];
    return { height: this.shape[rows], width: this.shape[columns] };
  }

  // Millimetres of a pixel; squares where the file does not say.
  pixel(plane) {
    const { rows, columns } = CUTS[plane];
    const height = this.spacing[rows], width = this.spacing[columns];
    return height && width ? { height, width, known: true } : { height: 1, width: 1, known: false };
  }

  // The point of the volume under a pixel of a slice.
  point(plane, slice, row, column) {
    const cut = CUTS[plane];
    const point = [0, 0, 0];
    point[cut.along] = slice;
    point[cut.rows] = cut.upside ? this.shape[cut.rows] - 1 - row : row;
    point[cut.columns] = column;
    return point;
  }

  // The pixel of a plane that shows a point.
  place(plane, point) {
    const cut = CUTS[plane];
    const row = point[cut.rows];
    return {
      slice: point[cut.along],
      row: cut.upside ? this.shape[cut.rows] - 1 - row : row,
      column: point[cut.columns],
    };
  }

  index(point) { return (point[0] * this.shape[1] + point[1]) * this.shape[2] + point[2]; }

  // Calls visit(index of the number, index of the pixel) for every pixel of a slice, row by row.
  forEach(plane, slice, visit) {
    const cut = CUTS[plane];
    const steps = [this.shape[1] * this.shape[2], this.shape[2], 1];
    const { height, width } = this.size(plane);
    const step = steps[cut.columns];
    let pixel = 0;
    for (let row = 0; row < height; row += 1) {
      const from = cut.upside ? height - 1 - row : row;
      let at = slice * steps[cut.along] + from * steps[cut.rows];
      for (let column = 0; column < width; column += 1, at += step) visit(at, pixel++);
    }
  }
}

// Draws grey or colour numbers through a window into RGBA.
export function paintImage(target, numbers, geometry, plane, slice, image, window) {
  const out = new Uint32Array(target.data.buffer);
  const width = Math.max(window.width, 1e-6);
  const gain = (255 * image.slope) / width;
  const offset = (255 * (image.intercept - (window.centre - width / 2))) / width;
  const grey = (value) => {
    const level = value * gain + offset;
    return level <= 0 ? 0 : level >= 255 ? 255 : (level + 0.5) | 0;
  };
  if (geometry.channels === 3) {
    geometry.forEach(plane, slice, (at, pixel) => {
      const k = at * 3;
      out[pixel] = 0xff000000 | (grey(numbers[k + 2]) << 16) | (grey(numbers[k + 1]) << 8) | grey(numbers[k]);
    });
    return;
  }
  geometry.forEach(plane, slice, (at, pixel) => {
    out[pixel] = 0xff000000 | (grey(numbers[at]) * 0x010101);
  });
}

// Draws a layer through a table of colours: one entry for each number.
export function paintLayer(target, numbers, geometry, plane, slice, table) {
  const out = new Uint32Array(target.data.buffer);
  geometry.forEach(plane, slice, (at, pixel) => { out[pixel] = table[numbers[at]]; });
}
