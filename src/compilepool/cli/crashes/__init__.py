"""The commands `compilepool crashes` and `compilepool replay`."""
