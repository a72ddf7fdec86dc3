"""What a stage needs and takes, before anything is rented: memory per GPU, FLOPs, hours, cost."""
