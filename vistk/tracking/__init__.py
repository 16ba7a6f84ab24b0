"""``vistk track``: a video, a folder of frames or a camera to tracks."""
