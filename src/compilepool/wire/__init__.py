"""All that crosses a process border. Imports nothing but the standard library and itself."""
