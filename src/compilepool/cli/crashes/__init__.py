"""`compilepool crashes` and `compilepool replay`."""
