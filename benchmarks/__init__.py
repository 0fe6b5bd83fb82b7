"""What the library costs and how well it sees, side by side with what people use today: `python -m benchmarks`."""
