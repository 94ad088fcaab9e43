"""The parts that graphs are made of, each named after the method of a torch module that it repeats
node by node."""
