"""The compiled modules: each a few types of the C++ core. Programs use the public modules above."""
