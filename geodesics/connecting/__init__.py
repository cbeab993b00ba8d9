"""The doors to geodesics between points: `geodesic`, distances, logarithms, and pairs whose ends move a little from
call to call. Uses `solvers`."""
