"""Pictures that are the same to the eye, in the plain values that the log of a scan keeps."""
