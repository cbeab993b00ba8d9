"""The plugins that the core takes as generators, and the parts that they are made of, with hand-written derivatives."""
