"""`compilepool doctor`: what this machine allows, and what each missing thing costs."""
