"""Pages: runs as one self-contained HTML file, from the table down to the frames of a failure."""
