"""What happens around the training loop: averages, previews, checkpoints, limits and the word to the user."""
