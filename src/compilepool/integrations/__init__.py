"""compilepool inside other projects. Each integration is imported only when it is asked for."""
