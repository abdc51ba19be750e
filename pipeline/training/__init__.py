"""Training on one process or many: who runs where, what is kept, how it goes on after a kill."""
