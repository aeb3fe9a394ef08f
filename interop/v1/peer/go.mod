module interop/v1

go 1.23

require github.com/inconshreveable/muxado v0.0.0

replace github.com/inconshreveable/muxado => ./muxado
