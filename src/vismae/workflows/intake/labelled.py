"""An image and the label map that its table gives it, as one file of the ledger."""

from vismae.core.errors import UnreadableFileError
from vismae.data.manifest import FileReference
from vismae.files.discover import find_file
from vismae.files.found import FoundFile, with_label_map


def found_with_label_map(found: FoundFile, label_map: FileReference | None) -> FoundFile:
    """Return an image that has changed when its label map has, if it has one.

    A label map that is not there changes nothing: whoever reads it says so.
    """
    if label_map is None:
        return found
    try:
        return with_label_map(found, find_file(label_map.path, label_map.member))
    except UnreadableFileError:
        return found
