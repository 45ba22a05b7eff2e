package main

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// An answer that takes longer is an error.
const answerTime = 10 * time.Second

type httpConnection struct {
	net.Conn
	reader *bufio.Reader
	etcd   bool
	host   string
	values *values
	buffer []byte
}

func dialHTTP(s *settings, v *values) (connection, error) {
	one, err := net.DialTimeout("tcp", s.address, answerTime)
	if err != nil {
		return nil, err
	}
	return &httpConnection{
		one, bufio.NewReader(one), s.dialect == "etcd", s.address, v, nil,
	}, nil
}

func (c *httpConnection) close() {
	_ = c.Conn.Close() // nothing is under way
}

func (c *httpConnection) put(key int) error {
	if c.etcd {
		return c.post("/v3/kv/put", fmt.Sprintf(`{"key":"%s","value":"%s"}`,
			base64.StdEncoding.EncodeToString([]byte(keyName(key))),
			base64.StdEncoding.EncodeToString(c.values.of(key))))
	}
	return c.ask("PUT", "/"+keyName(key), c.values.of(key))
}

func (c *httpConnection) get(key int, stale bool) error {
	if c.etcd {
		more := ""
		if stale {
			more = `,"serializable":true`
		}
		return c.post("/v3/kv/range", fmt.Sprintf(`{"key":"%s"%s}`,
			base64.StdEncoding.EncodeToString([]byte(keyName(key))), more))
	}
	path := "/" + keyName(key)
	if stale {
		path += "?consistency=stale"
	}
	return c.ask("GET", path, nil)
}

func (c *httpConnection) post(path, body string) error {
	return c.ask("POST", path, []byte(body))
}

func (c *httpConnection) ask(method, path string, body []byte) error {
	out := c.buffer[:0]
	out = append(out, method...)
	out = append(out, ' ')
	out = append(out, path...)
	out = append(out, " HTTP/1.1\r\nHost: "...)
	out = append(out, c.host...)
	if method != "GET" {
		out = append(out, "\r\nContent-Length: "...)
		out = strconv.AppendInt(out, int64(len(body)), 10)
	}
	out = append(out, "\r\n\r\n"...)
	out = append(out, body...)
	c.buffer = out
	if err := c.SetDeadline(time.Now().Add(answerTime)); err != nil {
		return err
	}
	if _, err := c.Write(out); err != nil {
		return fmt.Errorf("errors writing")
	}
	answer, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return fmt.Errorf("errors reading")
	}
	if _, err = io.Copy(io.Discard, answer.Body); err != nil {
		return fmt.Errorf("errors reading")
	}
	if answer.StatusCode/100 != 2 {
		return fmt.Errorf("answers %d", answer.StatusCode)
	}
	return nil
}
