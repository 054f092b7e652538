"""compilepool within other projects. Each is imported only when it is asked for."""
