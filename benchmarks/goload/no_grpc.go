//go:build !etcd

package main

import "fmt"

func dialGRPC(*settings, *values) (connection, error) {
	return nil, fmt.Errorf("built without etcd's client")
}
