"""Parts of ``vismae embed``: what is embedded, what is kept of it, and the looks at the result."""
