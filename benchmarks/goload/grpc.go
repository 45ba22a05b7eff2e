//go:build etcd

package main

import (
	"context"
	"fmt"
	"time"

	"go.etcd.io/etcd/clientv3"
)

const dialTime = 10 * time.Second

type grpcConnection struct {
	client *clientv3.Client
	values *values
}

// Each has a client, and so a TCP connection, of its own.
func dialGRPC(s *settings, v *values) (connection, error) {
	client, err := clientv3.New(clientv3.Config{
		Endpoints:   []string{s.address},
		DialTimeout: dialTime,
	})
	if err != nil {
		return nil, err
	}
	one := &grpcConnection{client, v}
	if err = one.get(0, true); err != nil { // connected before anything is measured
		return nil, fmt.Errorf("%s does not answer: %w", s.address, err)
	}
	return one, nil
}

func (c *grpcConnection) close() {
	_ = c.client.Close() // nothing is under way
}

func (c *grpcConnection) put(key int) error {
	ending, cancel := context.WithTimeout(context.Background(), answerTime)
	defer cancel()
	_, err := c.client.Put(ending, keyName(key), string(c.values.of(key)))
	return err
}

func (c *grpcConnection) get(key int, stale bool) error {
	ending, cancel := context.WithTimeout(context.Background(), answerTime)
	defer cancel()
	var options []clientv3.OpOption
	if stale {
		options = append(options, clientv3.WithSerializable())
	}
	_, err := c.client.Get(ending, keyName(key), options...)
	return err
}
