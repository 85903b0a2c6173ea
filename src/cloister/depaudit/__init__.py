"""`cloister audit`: let dependency code run in a throw-away sandbox full of canaries, and say what it did."""
