"""Remote files by byte ranges: `hdf5` and `npy` read windows, `index` and `reader` headers; `cache` keeps them."""
