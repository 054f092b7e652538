"""The fork server process: the warm template that workers are forked from."""
