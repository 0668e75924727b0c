"""Numbers that can be trusted: features, distances between sets of images, and the protocol that says how they were measured."""
