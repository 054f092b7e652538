"""The commands `compilepool ps` and `compilepool stop`."""
