"""Editing photographs: what is asked, how a model is shown and told it, and whether it did what was asked."""
