"""Arrays in, arrays out: what computes convolution and pooling."""
