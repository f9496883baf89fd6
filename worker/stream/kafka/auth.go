package kafka

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/freshet-ml/freshet/ps"
)

// Mechanisms of SASL.
const (
	Plain       = "plain"
	SCRAMSHA256 = "scram-sha-256"
	SCRAMSHA512 = "scram-sha-512"
)

// Auth is how brokers are reached and who they are told asks.
type Auth struct {
	// TLS encrypts. CA is a file with the certificates that brokers may be signed by, in
	// PEM; empty means the machine's. Certificate and Key are files with what this side shows,
	// where brokers want that.
	TLS                  bool
	CA, Certificate, Key string
	// Mechanism is one of SASL; empty means none. PasswordFile is a file with the password.
	Mechanism, User, PasswordFile string
}

// options returns the client's options.
func (a Auth) options() (options []kgo.Opt, err error) {
	if a.TLS {
		config := &tls.Config{MinVersion: tls.VersionTLS12}
		if a.CA != "" {
			pem, err := os.ReadFile(a.CA)
			if err != nil {
				return nil, fmt.Errorf("certificates of Kafka's brokers: %w", err)
			}
			config.RootCAs = x509.NewCertPool()
			if !config.RootCAs.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("certificates of Kafka's brokers: %s has none in PEM: %w", a.CA, ps.ErrInvalid)
			}
		}
		if a.Certificate != "" || a.Key != "" {
			pair, err := tls.LoadX509KeyPair(a.Certificate, a.Key)
			if err != nil {
				return nil, fmt.Errorf("certificate for Kafka's brokers: %w", err)
			}
			config.Certificates = []tls.Certificate{pair}
		}
		options = append(options, kgo.DialTLSConfig(config))
	}
	if a.Mechanism == "" {
		return options, nil
	}
	password, err := os.ReadFile(a.PasswordFile)
	if err != nil {
		return nil, fmt.Errorf("password for Kafka's brokers: %w", err)
	}
	secret := strings.TrimRight(string(password), "\r\n")
	switch a.Mechanism {
	case Plain:
		options = append(options, kgo.SASL(plain.Auth{User: a.User, Pass: secret}.AsMechanism()))
	case SCRAMSHA256:
		options = append(options, kgo.SASL(scram.Auth{User: a.User, Pass: secret}.AsSha256Mechanism()))
	case SCRAMSHA512:
		options = append(options, kgo.SASL(scram.Auth{User: a.User, Pass: secret}.AsSha512Mechanism()))
	default:
		return nil, fmt.Errorf("SASL mechanism %q: want %s, %s or %s: %w", a.Mechanism, Plain, SCRAMSHA256, SCRAMSHA512, ps.ErrInvalid)
	}
	return options, nil
}
