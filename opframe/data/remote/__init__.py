"""Windows of remote HDF5 files by byte ranges: `hdf5.RemoteHdf5` reads, `cache.RemoteCache` is what all files share."""
