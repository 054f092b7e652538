"""`compilepool demo`: compiles real kernels among bad jobs, and shows what becomes of them."""
