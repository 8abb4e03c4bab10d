"""Read images and label maps from the files of a data set."""
