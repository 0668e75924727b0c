"""Networks: what turns a noisy image, a time and a condition into a prediction."""
