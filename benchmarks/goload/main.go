// Goload puts a load on a server, and tells in JSON how long answers took.
//
// A closed loop keeps one request under way on each connection.  An open loop
// (-rate) sends requests when they are due: each is counted from the moment it was
// due, whether a connection was free then or not.
//
// Over HTTP it speaks as kvdb or as etcd's JSON gateway; over gRPC, where it was
// built with the tag etcd, with etcd's own client, one for each connection.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// After the end of an open loop, answers are waited for so long.
const grace = 10 * time.Second

// A connection carries one request at a time.
type connection interface {
	put(key int) error
	get(key int, stale bool) error
	close()
}

type settings struct {
	transport, dialect, address, kind, skew string
	connections, seconds                    int
	valueBytes, keys, rate                  int
	seed                                    int64
}

type figures struct {
	Requests     int            `json:"requests"`
	Microseconds int64          `json:"microseconds"`
	Histogram    map[int64]int  `json:"histogram"`
	Errors       map[string]int `json:"errors"`
}

func newFigures() *figures {
	return &figures{Histogram: map[int64]int{}, Errors: map[string]int{}}
}

func (f *figures) note(taken time.Duration, err error) {
	if err != nil {
		f.Errors[err.Error()]++
		return
	}
	f.Requests++
	f.Histogram[taken.Microseconds()]++
}

func (f *figures) add(other *figures) {
	f.Requests += other.Requests
	for taken, count := range other.Histogram {
		f.Histogram[taken] += count
	}
	for name, count := range other.Errors {
		f.Errors[name] += count
	}
}

// One request, as the kind of load has it.
func ask(s *settings, keys *source, one connection) error {
	key := keys.draw()
	switch {
	case s.kind == "put" || s.kind == "mix" && keys.oneOfTen():
		return one.put(key)
	default:
		return one.get(key, s.kind == "stale")
	}
}

func closed(s *settings, connections []connection) *figures {
	begun := time.Now()
	end := begun.Add(time.Duration(s.seconds) * time.Second)
	each := make([]*figures, len(connections))
	var group sync.WaitGroup
	for number, one := range connections {
		each[number] = newFigures()
		group.Add(1)
		go func(keys *source, one connection, noted *figures) {
			defer group.Done()
			for sent := time.Now(); sent.Before(end); {
				err := ask(s, keys, one)
				answered := time.Now()
				if answered.After(end) {
					return
				}
				noted.note(answered.Sub(sent), err)
				if err != nil {
					return
				}
				sent = answered
			}
		}(newSource(s, number), one, each[number])
	}
	group.Wait()
	return sum(each, end.Sub(begun))
}

func open(s *settings, connections []connection) *figures {
	total := s.rate * s.seconds
	due := make(chan time.Time, total) // never full: who sends is never kept
	each := make([]*figures, len(connections))
	var group sync.WaitGroup
	begun := time.Now()
	givenUp := begun.Add(time.Duration(s.seconds)*time.Second + grace)
	for number, one := range connections {
		each[number] = newFigures()
		group.Add(1)
		go func(keys *source, one connection, noted *figures) {
			defer group.Done()
			for moment := range due {
				if time.Now().After(givenUp) {
					noted.note(0, fmt.Errorf("requests not sent in time"))
					continue
				}
				err := ask(s, keys, one)
				noted.note(time.Since(moment), err)
			}
		}(newSource(s, number), one, each[number])
	}
	// The runtime's own timers come up to a millisecond late; the kernel's do not.
	runtime.LockOSThread()
	for number := 0; number < total; number++ {
		moment := begun.Add(time.Duration(int64(number) * int64(time.Second) / int64(s.rate)))
		for left := time.Until(moment); left > 0; left = time.Until(moment) {
			pause := syscall.NsecToTimespec(int64(left))
			_ = syscall.Nanosleep(&pause, nil) // interrupted, it sleeps again
		}
		due <- moment
	}
	close(due)
	group.Wait()
	return sum(each, time.Since(begun))
}

func sum(each []*figures, taken time.Duration) *figures {
	all := newFigures()
	for _, one := range each {
		all.add(one)
	}
	all.Microseconds = taken.Microseconds()
	return all
}

func connect(s *settings) ([]connection, error) {
	var connections []connection
	values := newValues(s.valueBytes)
	for len(connections) < s.connections {
		var one connection
		var err error
		if s.transport == "grpc" {
			one, err = dialGRPC(s, values)
		} else {
			one, err = dialHTTP(s, values)
		}
		if err != nil {
			return nil, err
		}
		connections = append(connections, one)
	}
	return connections, nil
}

func run(s *settings) error {
	connections, err := connect(s)
	if err != nil {
		return err
	}
	loop := closed
	if s.rate > 0 {
		loop = open
	}
	told := loop(s, connections)
	for _, one := range connections {
		one.close()
	}
	return json.NewEncoder(os.Stdout).Encode(told)
}

func main() {
	s := &settings{}
	flag.StringVar(&s.transport, "transport", "http", "http or grpc")
	flag.StringVar(&s.dialect, "dialect", "kvdb", "over HTTP: kvdb or etcd")
	flag.StringVar(&s.address, "address", "", "host:port")
	flag.StringVar(&s.kind, "kind", "put", "put, get, stale or mix")
	flag.StringVar(&s.skew, "skew", "uniform", "uniform or zipfian")
	flag.IntVar(&s.connections, "connections", 1, "how many")
	flag.IntVar(&s.seconds, "seconds", 1, "for how long")
	flag.IntVar(&s.valueBytes, "value-bytes", 64, "of each value")
	flag.IntVar(&s.keys, "keys", 10000, "how many there are")
	flag.IntVar(&s.rate, "rate", 0, "requests a second; 0 for a closed loop")
	flag.Int64Var(&s.seed, "seed", 1, "of the keys that are drawn")
	flag.Parse()
	if err := run(s); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
