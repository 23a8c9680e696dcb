"""How the 21 layers are trained: settings, recipes, and the trainer that they describe."""
