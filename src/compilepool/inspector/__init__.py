"""A process that looks at one worker from outside, once."""
