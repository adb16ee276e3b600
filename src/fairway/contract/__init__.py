"""What the columns are and what fairway.toml says: values and pure functions over them."""
