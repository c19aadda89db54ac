"""The parts of ``vismae web`` that read files and ask models; they run apart from the server."""
