"""Images: references, content-addressed blobs, unpacked layers, archives, and the store that ties them together."""
