"""All model work: slots, batches, and the threads that own a device."""
