package kafka_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/stream/kafka"
)

// certificate returns a certificate of the loopback that signs itself, and a file with it.
func certificate(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "broker"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
		file(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
}

func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestBrokersThatEncryptAndAskWhoIsThere(t *testing.T) {
	pair, ca := certificate(t)
	_, otherCA := certificate(t)
	cluster, err := kfake.NewCluster(
		kfake.NumBrokers(1), kfake.SeedTopics(1, topic), kfake.TLS(&tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}),
		kfake.EnableSASL(), kfake.Superuser("PLAIN", "shop", "pass"), kfake.Superuser("SCRAM-SHA-256", "shop", "pass"), kfake.Superuser("SCRAM-SHA-512", "shop", "pass"),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	url := "kafka://" + strings.Join(cluster.ListenAddrs(), ",") + "/" + topic
	password := file(t, "pass\n")
	for _, mechanism := range []string{kafka.Plain, kafka.SCRAMSHA256, kafka.SCRAMSHA512} {
		auth := kafka.Auth{TLS: true, CA: ca, Mechanism: mechanism, User: "shop", PasswordFile: password}
		if n, err := kafka.Send(t.Context(), kafka.SendConfig{URL: url, Auth: auth}, strings.NewReader("item\n"+mechanism+"\n")); err != nil || n != 1 {
			t.Fatalf("%s: sent %d: %v", mechanism, n, err)
		}
		c := (&broker{t: t, cluster: cluster}).config()
		c.Auth, c.From = auth, "earliest"
		s := open(t, c)
		events := next(t, read(t, s, all(1)...), int(s.Size()))
		if want := " - " + mechanism + " - -"; !strings.HasSuffix(events[len(events)-1], want) {
			t.Errorf("%s: the last event is %q, want %q", mechanism, events[len(events)-1], want)
		}
	}
	for what, auth := range map[string]kafka.Auth{
		"no TLS":             {Mechanism: kafka.Plain, User: "shop", PasswordFile: password},
		"another's word":     {TLS: true, CA: otherCA, Mechanism: kafka.Plain, User: "shop", PasswordFile: password},
		"nobody's name":      {TLS: true, CA: ca},
		"the wrong password": {TLS: true, CA: ca, Mechanism: kafka.SCRAMSHA256, User: "shop", PasswordFile: file(t, "word")},
	} {
		_, err := kafka.Send(t.Context(), kafka.SendConfig{URL: url, Auth: auth}, strings.NewReader("item\nx\n"))
		if !errors.Is(err, ps.ErrUnavailable) || strings.Contains(err.Error(), "word\"") {
			t.Errorf("%s: %v, want ErrUnavailable without the password", what, err)
		}
	}
	for what, auth := range map[string]kafka.Auth{
		"no password":           {Mechanism: kafka.Plain, User: "shop"},
		"no certificates in it": {TLS: true, CA: password},
	} {
		if _, err := kafka.Send(t.Context(), kafka.SendConfig{URL: url, Auth: auth}, strings.NewReader("item\nx\n")); err == nil || errors.Is(err, ps.ErrUnavailable) {
			t.Errorf("%s: %v, want it refused before anybody is asked", what, err)
		}
	}
}
