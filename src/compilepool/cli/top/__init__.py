"""`compilepool top`: shows all pools of this user on this machine."""
