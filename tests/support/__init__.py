"""What tests and benches share: tiny speech, models, recipes, the command line, faults and mutants."""
