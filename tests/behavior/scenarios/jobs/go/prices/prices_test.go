package prices

import (
	"os"
	"path/filepath"
	"testing"
)

func TestPrice(t *testing.T) {
	if err := os.WriteFile(filepath.Join(t.TempDir(), "a"), nil, 0o600); err != nil || Price("tea") != 3 {
		t.Fatal(err)
	}
}
