"""Parts of ``vismae export``: one file for each form that a model folder can be written in."""
