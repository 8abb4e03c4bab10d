"""From the files of a data set to images and label maps."""
