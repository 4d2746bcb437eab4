"""From a set of images and a champion to the question whether anything is to be done, and to what was done."""
