package main

import (
	"fmt"
	"math"
	"math/rand"
	"sort"
	"sync"
)

// As in load.py.
const (
	letters      = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	textSteps    = 1 << 14
	zipfExponent = 0.99
)

func keyName(key int) string {
	return fmt.Sprintf("k%08d", key)
}

// Values of all keys, of one size.
type values struct {
	size int
	text []byte
}

func newValues(size int) *values {
	random := rand.New(rand.NewSource(1))
	text := make([]byte, size+3*textSteps)
	for place := range text {
		text[place] = letters[random.Intn(len(letters))]
	}
	return &values{size, text}
}

func (v *values) of(key int) []byte {
	place := 3 * (key * 7919 % textSteps)
	return v.text[place : place+v.size]
}

// A source of keys: one for each connection, each with a seed of its own.
type source struct {
	random *rand.Rand
	keys   int
	sums   []float64
}

var zipf struct {
	once sync.Once
	sums []float64
}

func zipfSums(keys int) []float64 {
	zipf.once.Do(func() {
		sum := 0.0
		for rank := 1; rank <= keys; rank++ {
			sum += 1 / math.Pow(float64(rank), zipfExponent)
			zipf.sums = append(zipf.sums, sum)
		}
	})
	return zipf.sums
}

func newSource(s *settings, number int) *source {
	one := &source{rand.New(rand.NewSource(s.seed*1000000 + int64(number))), s.keys, nil}
	if s.skew == "zipfian" {
		one.sums = zipfSums(s.keys)
	}
	return one
}

func (s *source) draw() int {
	if s.sums == nil {
		return s.random.Intn(s.keys)
	}
	return sort.SearchFloat64s(s.sums, s.random.Float64()*s.sums[len(s.sums)-1])
}

func (s *source) oneOfTen() bool {
	return s.random.Intn(10) == 0
}
