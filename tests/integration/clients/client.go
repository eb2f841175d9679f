// SPDX-License-Identifier: Apache-2.0
// What an application with the Go library sends: each type it knows.
package main

import (
	"os"
	"strconv"
	"time"

	"github.com/DataDog/datadog-go/v5/statsd"
)

func main() {
	c, err := statsd.New(os.Args[1], statsd.WithTags([]string{"app:go"}),
		statsd.WithoutTelemetry(), statsd.WithWriteTimeout(5*time.Second))
	if err != nil {
		panic(err)
	}
	for i := 1; i <= 100; i++ {
		c.Incr("go.count", nil, 1)
		c.Gauge("go.gauge", float64(i), nil, 1)
		c.Histogram("go.hist", float64(i), nil, 1)
		c.Timing("go.timing", time.Duration(i)*time.Millisecond, nil, 1)
		c.Distribution("go.dist", float64(i), nil, 1)
		c.Set("go.set", strconv.Itoa(i%10), nil, 1)
	}
	c.SimpleEvent("a title", "a text\nof two lines")
	c.SimpleServiceCheck("go.check", statsd.Warn)
	if err := c.Close(); err != nil {
		panic(err)
	}
}
